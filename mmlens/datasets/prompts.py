"""The text that a model is given with a picture, a video or a sound, or alone.

MMNeuron counts activations on the bare question and evaluates with a longer prompt (methods 2.5). The
short-answer and option instructions are LLaVA-1.5's own. The driver's role text is in our words: it
says what the paper's says, but is not that text, so LingoQA answers may differ a little from theirs.

MINER's prompts are known to us by their description alone (methods 3.6): what they ask for is as
described, the words, COCO's four example captions among them, are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from mmlens.errors import SampleError

#: ``paper``: the evaluation prompt; ``instructblip``: its form for InstructBLIP, where there is one;
#: ``bare``: the question alone, as in MMNeuron's statistics pass.
Prompt = Literal["paper", "instructblip", "bare"]

PROMPTS: tuple[Prompt, ...] = ("paper", "instructblip", "bare")

SHORT_ANSWER = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
DRIVER = (
    "Role: You are an assistant on board of a car, the ego vehicle, and talk about the traffic around "
    "it. The pictures are what its front camera sees; the ego vehicle itself cannot be seen in them."
)
CAPTION = "Describe the picture in one short sentence."
CAPTIONS = (
    "A brown dog jumps over a fence in a garden.",
    "Two women wait at a bus stop in the rain.",
    "A plate of noodles and a cup of tea on a wooden table.",
    "An old steam train crosses a bridge over a river.",
)
TRANSCRIBE = "Write down what is said in this recording, the spoken words and nothing else."
VOCAL = "Which sound does the person in this recording make?"


def driving(question: str, prompt: Prompt) -> str:
    """LingoQA: the role, and the question."""
    return question if prompt == "bare" else f"{DRIVER} Question: {question}"


def short_answer(question: str, prompt: Prompt) -> str:
    """RSVQA, DocVQA and VQAv2: the question, and to answer briefly."""
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


def scene_text(question: str, prompt: Prompt) -> str:
    """TextVQA: MINER asks the bare question; for InstructBLIP, also to answer briefly."""
    return short_answer(question, prompt) if prompt == "instructblip" else question


def caption(question: str, prompt: Prompt) -> str:
    """COCO: what to do, and four captions to show how long one is."""
    if prompt == "bare":
        return question
    return "\n".join([question, "Captions of other pictures, as examples:", *CAPTIONS, "Caption:"])


def video_answer(question: str, prompt: Prompt) -> str:
    """MSVD-QA: the question, and to answer briefly."""
    return question if prompt == "bare" else f"{question}\n{SHORT_ANSWER}"


def one_of(question: str, choices: Sequence[str], prompt: Prompt) -> str:
    """VocalSound: the question and the classes, one of which is the answer."""
    if prompt == "bare":
        return question
    return f"{question} Answer with one of these: {', '.join(choices)}."


def lettered(question: str, choices: Sequence[str], answer: str = "") -> str:
    """MMLU: a question, its options a line each, and the letter of its answer or room for it."""
    options = [f"{chr(ord('A') + i)}. {text}" for i, text in enumerate(choices)]
    return "\n".join([question, *options, f"Answer: {answer}".rstrip()])


def shown(subject: str, examples: Sequence[str], asked: str) -> str:
    """MMLU: answered questions of a subject, and the one that is asked."""
    head = f"Multiple-choice questions about {subject.replace('_', ' ')}; answer with one letter."
    return "\n\n".join([head, *examples, asked])


def checked_prompt(prompt: str) -> Prompt:
    """The prompt's name.

    Raises:
        SampleError: there is no such prompt.
    """
    for one in PROMPTS:
        if one == prompt:
            return one
    raise SampleError(f"There is no prompt {prompt!r}; there are {', '.join(PROMPTS)}.")
