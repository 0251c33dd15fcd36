"""The text that is put to a model with a picture.

MMNeuron counts activations on the bare question and evaluates with a longer prompt (methods 2.5). The
short-answer and option instructions are LLaVA-1.5's own. The driver's role text is in our words: it
says what the paper's says, but is not that text, so LingoQA answers may differ a little from theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from mmlens.errors import SampleError

#: ``paper``: the evaluation prompt; ``instructblip``: its form for InstructBLIP; ``bare``: the
#: question alone, as in the paper's statistics pass.
Prompt = Literal["paper", "instructblip", "bare"]

PROMPTS: tuple[Prompt, ...] = ("paper", "instructblip", "bare")

SHORT_ANSWER = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
DRIVER = (
    "Role: You are an assistant on board of a car, the ego vehicle, and talk about the traffic around "
    "it. The pictures are what its front camera sees; the ego vehicle itself cannot be seen in them."
)


def driving(question: str, prompt: Prompt) -> str:
    """LingoQA: the role, and the question."""
    return question if prompt == "bare" else f"{DRIVER} Question: {question}"


def short_answer(question: str, prompt: Prompt) -> str:
    """RSVQA, DocVQA and VQAv2: the question, and that the answer shall be short."""
    if prompt == "bare":
        return question
    ending = " Short Answer:" if prompt == "instructblip" else f"\n{SHORT_ANSWER}"
    return f"Question: {question}{ending}"


def multiple_choice(question: str, choices: Sequence[str], prompt: Prompt) -> str:
    """PMC-VQA: question, an empty context (not for InstructBLIP), options, and to give a letter."""
    if prompt == "bare":
        return question
    options = ", ".join(f"{chr(ord('A') + i)}: {text}" for i, text in enumerate(choices))
    context = "" if prompt == "instructblip" else "Context: N/A\n"
    return f"Question: {question}\n{context}Options: {options}\n{LETTER}"


def checked_prompt(prompt: str) -> Prompt:
    """The prompt's name.

    Raises:
        SampleError: there is none of it.
    """
    for one in PROMPTS:
        if one == prompt:
            return one
    raise SampleError(f"There is no prompt {prompt!r}; there are {', '.join(PROMPTS)}.")
