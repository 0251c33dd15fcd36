"""The benchmarks of MINER, tiny, in exactly their official layouts, and as Hugging Face copies.

Pictures, videos and sounds are drawn; questions, captions and transcriptions are made up.
"""

import csv
import io

import numpy as np
import pandas as pd
import soundfile

from tests.helpers.benchmarks_on_disk import encoded, picture, saved, write_json

RATE = 16000


def sound(number):
    """A quarter of a second that no other number has."""
    return 0.1 * np.random.default_rng(number).standard_normal(RATE // 4)


def encoded_sound(number, kind="FLAC"):
    out = io.BytesIO()
    soundfile.write(out, sound(number), RATE, format=kind)
    return out.getvalue()


def saved_sound(path, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound(number), RATE)


def saved_video(path, number, frames=4, size=(48, 32)):
    """An AVI, as the corpus has them."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(path, "w", format="avi") as container:
        stream = container.add_stream("mpeg4", rate=2)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for i in range(frames):
            frame = av.VideoFrame.from_image(picture(100 * number + i, size))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


# TextVQA: two questions on each picture, ten answers each


def textvqa_records(split="val"):
    return [
        {
            "question": f"what does sign {i} say?",
            "image_id": f"pic{i // 2}",
            "image_classes": ["Sign", "Street"],
            "flickr_300k_url": "",
            "image_width": 24,
            "image_height": 16,
            "question_tokens": ["what"],
            "question_id": 34602 + i,
            "set_name": split,
            **({} if split == "test" else {"answers": [f"stop {i}"] * 7 + ["halt", "go", "Stop"]}),
        }
        for i in range(6)
    ]


def textvqa(root, split="val", place="train_images"):
    write_json(
        root / f"TextVQA_0.5.1_{split}.json",
        {"dataset_type": split, "dataset_version": "0.5.1", "data": textvqa_records(split)},
    )
    for i in range(3):
        saved(root / place / f"pic{i}.jpg", i)
    return root


def textvqa_columns(split="val"):
    return [
        {
            **{name: one[name] for name in ("question", "image_id", "image_classes")},
            "question_id": one["question_id"],
            "image": {"bytes": encoded(int(one["image_id"][3:])), "path": None},
            "answers": one.get("answers", [""] * 10),
        }
        for one in textvqa_records(split)
    ]


# COCO captions: of seven pictures, four are of the split that is asked


def coco_captions(i):
    return [f"A cat number {i} sits. ", *(f"Cat {i}, caption {k}." for k in range(1, 5))]


def coco(root, split="test"):
    images = []
    for i in range(7):
        folder = "train2014" if i == 0 else "val2014"
        images.append(
            {
                "filepath": folder,
                "sentids": [5 * i + k for k in range(5)],
                "filename": f"COCO_{folder}_{i:012d}.jpg",
                "imgid": i,
                "split": "train" if i == 0 else ("restval", "val")[i - 1] if i < 3 else split,
                "sentences": [
                    {"tokens": ["a"], "raw": raw, "imgid": i, "sentid": 5 * i + k}
                    for k, raw in enumerate(coco_captions(i))
                ],
                "cocoid": 1000 + i,
            }
        )
        saved(root / folder / images[-1]["filename"], i)
    write_json(root / "dataset_coco.json", {"images": images, "dataset": "coco"})
    return root


def coco_columns():
    """A row for each picture, captions as strings."""
    return [
        {
            "cocoid": 1000 + i,
            "sentences_raw": coco_captions(i),
            "image": {"bytes": encoded(i), "path": None},
        }
        for i in range(3, 7)
    ]


def coco_caption_columns():
    """A row for each caption."""
    return [
        {**{k: v for k, v in one.items() if k != "sentences_raw"}, "sentences": {"raw": raw}}
        for one in coco_columns()
        for raw in one["sentences_raw"]
    ]


# MMLU: two subjects


SUBJECTS = ("abstract_algebra", "world_religions")


def mmlu_rows(subject, split, n=3):
    rows = []
    for i in range(n):
        options = [f"{subject[0]}{i}{letter}" for letter in "xyz"] + ["N/A"]
        rows.append([f"Which {subject},\n{split} {i}?", *options, "ABCD"[(i + len(split)) % 4]])
    return rows


def mmlu(root, splits=("dev", "val", "test")):
    for split in splits:
        folder = root / "data" / split
        folder.mkdir(parents=True, exist_ok=True)
        for subject in SUBJECTS:
            with (folder / f"{subject}_{split}.csv").open("w", newline="") as file:
                rows = mmlu_rows(subject, split, 5 if split == "dev" else 3)
                csv.writer(file).writerows(rows)
    return root


def mmlu_columns(split):
    return [
        {
            "question": row[0],
            "subject": subject,
            "choices": row[1:5],
            "answer": "ABCD".index(row[5]),
        }
        for subject in SUBJECTS
        for row in mmlu_rows(subject, split, 5 if split == "dev" else 3)
    ]


# MSVD-QA: two questions on each clip


def msvd_qa_records():
    return [
        {
            "answer": ("cat", "run", "two")[i % 3],
            "id": 36922 + i,
            "question": f"what is thing {i} doing?",
            "video_id": 1301 + i // 2,
        }
        for i in range(6)
    ]


def msvd_qa(root, split="test"):
    write_json(root / f"{split}_qa.json", msvd_qa_records())
    lines = [f"clip{number}_5_15 vid{1301 + number}" for number in range(3)]
    (root / "youtube_mapping.txt").write_text("\n".join(lines) + "\n\n")
    for number in range(3):
        saved_video(root / "YouTubeClips" / f"clip{number}_5_15.avi", number)
    return root


def msvd_qa_columns(root):
    return [
        {
            **one,
            "video": {
                "bytes": (
                    root / "YouTubeClips" / f"clip{one['video_id'] - 1301}_5_15.avi"
                ).read_bytes(),
                "path": None,
            },
        }
        for one in msvd_qa_records()
    ]


# LibriSpeech: two speakers; sound number n is the n-th utterance


LIBRISPEECH = tuple(
    (speaker, chapter, f"{speaker}-{chapter}-{i:04d}", f"HE SAID {speaker} {i}")
    for speaker, chapter in ((1089, 134686), (121, 123852))
    for i in range(3)
)


def librispeech(root, split="test-clean"):
    for n, (speaker, chapter, name, text) in enumerate(LIBRISPEECH):
        folder = root / "LibriSpeech" / split / str(speaker) / str(chapter)
        saved_sound(folder / f"{name}.flac", n)
        with (folder / f"{speaker}-{chapter}.trans.txt").open("a") as file:
            file.write(f"{name} {text}\n")
    return root


def librispeech_columns():
    return [
        {
            "file": f"{name}.flac",
            "audio": {"bytes": encoded_sound(n), "path": f"{name}.flac"},
            "text": text,
            "speaker_id": speaker,
            "chapter_id": chapter,
            "id": name,
        }
        for n, (speaker, chapter, name, text) in enumerate(LIBRISPEECH)
    ]


# VocalSound: two speakers, a recording of each class; sound number n is the n-th recording


MIDS = {
    "Laughter": "/m/01j3sz",
    "Sigh": "/m/07plz5l",
    "Cough": "/m/01b_21",
    "Throat clearing": "/m/0dl9sf8",
    "Sneeze": "/m/01hsr_",
    "Sniff": "/m/07ppn3j",
}
VOCALSOUND = tuple(
    (speaker, f"{speaker}_0_{name.lower().replace(' ', '')}", name)
    for speaker in ("f0003", "m0012")
    for name in MIDS
)


def vocalsound(root, split="te"):
    root.mkdir(parents=True, exist_ok=True)
    labels = [
        {"index": i, "mid": mid, "display_name": name} for i, (name, mid) in enumerate(MIDS.items())
    ]
    pd.DataFrame(labels).to_csv(root / "class_labels_indices_vs.csv", index=False)
    write_json(
        root / "datafiles" / f"{split}.json",
        {
            "data": [
                {"wav": f"/somebody/vocalsound/audio_16k/{stem}.wav", "labels": MIDS[name]}
                for _, stem, name in VOCALSOUND
            ]
        },
    )
    for n, (_, stem, _) in enumerate(VOCALSOUND):
        saved_sound(root / "audio_16k" / f"{stem}.wav", n)
    return root


def vocalsound_columns():
    """As lmms-lab/vocalsound has them."""
    return [
        {
            "audio": {"bytes": encoded_sound(n, "WAV"), "path": f"{stem}.wav"},
            "spk_id": speaker,
            "answer": name,
            "age_group": 1,
        }
        for n, (speaker, stem, name) in enumerate(VOCALSOUND)
    ]
