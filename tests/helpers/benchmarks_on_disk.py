"""The benchmarks of MMNeuron, tiny, in exactly their official layouts; pictures are drawn."""

import io
import json

import numpy as np
import pandas as pd
from PIL import Image


def picture(number, size=(24, 16)):
    """A picture that no other number has."""
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encoded(number, kind="PNG"):
    out = io.BytesIO()
    picture(number).save(out, kind)
    return out.getvalue()


def saved(path, number):
    """A picture's file; a JPEG is hardly different from its picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"quality": 100, "subsampling": 0} if path.suffix == ".jpg" else {}
    picture(number).save(path, **options)


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


# LingoQA: two segments of three frames, two questions each, two references each


def lingoqa_rows(split="val"):
    return [
        {
            "question_id": f"{split}{question}",
            "segment_id": f"seg{question // 2}",
            "images": [f"images/{split}/seg{question // 2}/{i}.png" for i in range(3)],
            "question": f"Is there a car, number {question}?",
            "answer": f"answer {question}.{reference}",
        }
        for question in range(4)
        for reference in range(2)
    ]


def lingoqa(root, place="evaluation", split="val"):
    folder = root / place
    for row in lingoqa_rows(split):
        for i, name in enumerate(row["images"]):
            saved(folder / name, 10 * int(row["segment_id"][-1]) + i)
    pd.DataFrame(lingoqa_rows(split)).to_parquet(folder / f"{split}.parquet")
    return root


# RSVQA-HR: files list all splits' entries; active ones are this split's


def rsvqa(root, split="val"):
    questions, answers, images = [], [], []
    for i in range(8):
        active = i % 4 != 3
        image = {"id": i // 2, "original_name": f"tile{i // 4}", "active": True}
        images += [image] if i % 2 == 0 else []
        questions.append(
            {
                "id": i,
                "img_id": i // 2,
                "type": ("presence", "count")[i % 2],
                "question": f"How many roads, {i}?",
                "answers_ids": [i],
                "active": True,
            }
            if active
            else {"id": i, "active": False}
        )
        answers.append(
            {"id": i, "question_id": i, "answer": str(i % 3), "active": True}
            if active
            else {"id": i, "active": False}
        )
    for kind, records in (("questions", questions), ("answers", answers), ("images", images)):
        write_json(root / f"USGS_split_{split}_{kind}.json", {kind: records})
    for image in images:
        saved(root / "Data" / f"{image['id']}.tif", image["id"])
    return root


# PMC-VQA: version 1 with Answer_label, version 2 with a letter as the answer

OPTIONS = (" A:Diffuse uptake", " B:Focal uptake", " C:None", " D:N/A ")


def pmcvqa_rows(version=1):
    rows = []
    for i in range(6):
        letter = "ABCD"[i % 4]
        row = {
            "Figure_path": f"PMC{i // 2}_F1.jpg",
            "Question": f" What is the pattern, {i}?",
            **{f"Choice {one}": text for one, text in zip("ABCD", OPTIONS, strict=True)},
        }
        answer = OPTIONS[i % 4].split(":")[1]
        rows.append(
            {**row, "Answer": answer, "Answer_label": letter}
            if version == 1
            else {"index": i, **row, "Answer": letter, "split": "test"}
        )
    return rows


def pmcvqa(root, split="test", version=1):
    root.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(pmcvqa_rows(version)).to_csv(root / f"{split}.csv", index=False)
    for i in range(3):
        saved(root / ("images", "figures")[version - 1] / f"PMC{i}_F1.jpg", i)
    return root


# DocVQA


def docvqa_records(split="val"):
    return [
        {
            "questionId": 100 + i,
            "question": f"What is the date, {i}?",
            "image": f"documents/doc{i // 2}_{i // 2 + 1}.png",
            "docId": i // 2,
            "ucsf_document_id": f"doc{i // 2}",
            "ucsf_document_page_no": str(i // 2 + 1),
            **({} if split == "test" else {"answers": [f"{i} May", f"May {i}"]}),
            "data_split": split,
        }
        for i in range(6)
    ]


def docvqa(root, split="val"):
    write_json(
        root / f"{split}_v1.0.json",
        {"dataset_name": "docvqa", "dataset_split": split, "data": docvqa_records(split)},
    )
    for record in docvqa_records(split):
        saved(root / record["image"], record["docId"])
    return root


def docvqa_columns(split="val"):
    """As pixparse/docvqa-single-page-questions has them, pictures as mappings."""
    return [
        {
            "question_id": str(one["questionId"]),
            "question": one["question"],
            "answers": one.get("answers"),
            "image": {"bytes": encoded(one["docId"]), "path": None},
            "other_metadata": {
                "ucsf_document_id": one["ucsf_document_id"],
                "ucsf_document_page_no": one["ucsf_document_page_no"],
                "image": one["image"],
            },
        }
        for one in docvqa_records(split)
    ]


# VQAv2: ten answers each, the last question unanswerable

CONFIDENCE = ("yes", "maybe", "no", *("yes",) * 7)


def vqav2_answers(i):
    said = ["unanswerable"] * 10 if i == 5 else ["yes"] * (i + 1) + ["No"] * (9 - i)
    return [
        {"answer": answer, "answer_confidence": sure, "answer_id": number}
        for number, (answer, sure) in enumerate(zip(said, CONFIDENCE, strict=True), start=1)
    ]


def vqav2(root, split="val", year="val2014"):
    questions = [
        {"image_id": 42 + i // 2, "question": f"Is it red, {i}?", "question_id": 42000 + i}
        for i in range(6)
    ]
    write_json(root / f"v2_OpenEnded_mscoco_{year}_questions.json", {"questions": questions})
    if split != "test":
        annotations = [
            {
                "question_id": one["question_id"],
                "image_id": one["image_id"],
                "question_type": "is it",
                "answer_type": "yes/no",
                "multiple_choice_answer": "yes",
                "answers": vqav2_answers(i),
            }
            for i, one in enumerate(questions)
        ]
        # In another order than the questions: they are joined by id.
        write_json(root / f"v2_mscoco_{year}_annotations.json", {"annotations": annotations[::-1]})
    for number in (42, 43, 44):
        saved(root / year / f"COCO_{year}_{number:012d}.jpg", number)
    return root


def vqav2_columns():
    """As lmms-lab/VQAv2 has them."""
    return [
        {
            "question_id": 42000 + i,
            "question": f"Is it red, {i}?",
            "image_id": 42 + i // 2,
            "image": {"bytes": encoded(42 + i // 2), "path": None},
            "question_type": "is it",
            "answer_type": "yes/no",
            "multiple_choice_answer": "yes",
            "answers": vqav2_answers(i),
        }
        for i in range(6)
    ]
