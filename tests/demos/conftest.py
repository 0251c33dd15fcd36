"""What is read of a demo by the tests of it: a module names its DEMO, and the class of its MODEL."""

import json

import pandas as pd
import pytest
import torch
import transformers

import mmlens
from tests.helpers import demos


@pytest.fixture(scope="module")
def tables(request) -> dict[str, pd.DataFrame]:
    folder = mmlens.data.demos.demo_data(f"demo/{request.module.DEMO}")
    assert folder is not None
    return {split: pd.read_parquet(folder / f"{split}.parquet") for split in demos.SPLITS}


@pytest.fixture(scope="module")
def card(request) -> dict:
    return json.loads((demos.folder(request.module.DEMO) / "card.json").read_text())


@pytest.fixture(scope="module")
def processor(request):
    return transformers.AutoProcessor.from_pretrained(demos.folder(request.module.DEMO))


@pytest.fixture(scope="module")
def model(request):
    model_class = getattr(transformers, request.module.MODEL)
    folder = demos.folder(request.module.DEMO)
    return model_class.from_pretrained(folder, dtype=torch.float32).eval()
