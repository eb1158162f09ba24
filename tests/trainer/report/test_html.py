import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from mlpserve_model import Store
from mlpserve_trainer import Rules, TrainSettings, load_recipe, train
from mlpserve_trainer.datasets import Dataset


class Reader(HTMLParser):
    """What a page is made of: its text, its tags, and where it would fetch from."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.tags, self.links = "", list[str](), list[str]()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def settings(tmp_path: Path, stripes: Dataset) -> TrainSettings:
    names = np.array(["<b>left</b>", "middle", "right & more"])
    np.savez(tmp_path / "stripes.npz", X=stripes.inputs, y=names[stripes.labels])
    recipe = load_recipe("quick", dataset="npz", hidden=(8,), epochs=1, learning_rate=0.001)
    data, rules = tmp_path / "stripes.npz", Rules(min_accuracy=0)
    return TrainSettings(store=tmp_path / "store", recipe=recipe, data_dir=data, rules=rules)


def page(settings: TrainSettings, version: int) -> str:
    store = Store(settings.store, settings.model)
    return (store.path(version) / "report.html").read_text("utf-8")


@pytest.fixture
def pages(settings: TrainSettings) -> tuple[str, str]:
    train(settings)
    train(replace(settings, seed=1))
    return page(settings, 1), page(settings, 2)


def test_the_page_needs_nothing_else(pages: tuple[str, str]) -> None:
    reader = Reader(pages[1])
    assert all(link.startswith(("data:", "#")) for link in reader.links)
    assert not {"script", "link", "iframe"} & set(reader.tags)
    assert not re.search(r"url\((?!['\"]?#)|@import", pages[1])


def test_its_top_says_which_version_it_is_of_when_and_on_what_data(
    settings: TrainSettings, pages: tuple[str, str]
) -> None:
    for version, text in enumerate(pages, start=1):
        top = Reader(text.split("<h2")[0]).text
        manifest = Store(settings.store, settings.model).manifest(version)
        for words in (f"version{version}", f"{manifest.created:%Y-%m-%d}", manifest.dataset.digest):
            assert words in top
        assert str(settings.data_dir) in top


def test_it_shows_what_was_measured_and_decided(pages: tuple[str, str]) -> None:
    text = Reader(pages[0]).text
    for words in ("PROMOTED", "there is no champion yet", "validation accuracy", "Expected calib"):
        assert words in text
    for words in ("sha256:", "numpy", "learning_rate", "stratified 80/20"):
        assert words in text
    assert Reader(pages[0]).tags.count("svg") == 5


def test_it_compares_the_holdout_with_its_predecessors(pages: tuple[str, str]) -> None:
    first, second = (text.split("<h2>Drift</h2>")[1].split("<h2>")[0] for text in pages)
    assert "no champion with a reference.json" in first
    assert "beside the 60 rows of champion 1's" in second
    for signal in ("predicted class", "confidence", "energy", "mean input"):
        assert signal in second


def test_names_of_classes_are_text_and_not_markup(pages: tuple[str, str]) -> None:
    assert "<b>left</b>" in Reader(pages[0]).text
    assert "right & more" in Reader(pages[0]).text


def test_the_mistakes_are_shown_as_pictures_the_surest_first(pages: tuple[str, str]) -> None:
    captions = re.findall(r"taken for <b>.*?</b>, ([\d.]+)", pages[0])
    assert 0 < len(captions) <= 25
    assert captions == sorted(captions, reverse=True)
    assert Reader(pages[0]).tags.count("img") == len(captions) + 8


def test_the_second_version_is_compared_with_the_champion(pages: tuple[str, str]) -> None:
    text = Reader(pages[1]).text
    assert "only champion 1 right" in text
    assert re.search(r"\d+ rows gained, \d+ lost.*McNemar", text)
    assert "There was no champion to compare with" in Reader(pages[0]).text


def test_rows_that_are_no_pictures_are_named_by_number(
    settings: TrainSettings, stripes: Dataset
) -> None:
    assert settings.data_dir
    np.savez(settings.data_dir, X=stripes.inputs.reshape(300, 16), y=stripes.labels)
    train(settings)
    reader = Reader(page(settings, 1))
    assert re.search(r"row \d+", reader.text)
    assert "img" not in reader.tags


def test_the_same_training_gives_the_same_figures(settings: TrainSettings) -> None:
    train(settings)
    again = replace(settings, model="again")
    train(again)
    figures = [re.findall(r"<svg.*?</svg>", page(s, 1), re.S) for s in (settings, again)]
    assert figures[0] == figures[1]


@pytest.mark.parametrize(
    ("output", "loss"), [("softmax", "cross_entropy"), ("sigmoid", "mean_squared_error")]
)
def test_calibration_is_folded_into_the_weights_unless_the_recipe_says_none(
    settings: TrainSettings, output: str, loss: str
) -> None:
    knobs = {"epochs": 20, "label_smoothing": 0.5, "output_activation": output, "loss": loss}
    recipe = settings.recipe.override(knobs)
    calibrated = train(replace(settings, recipe=recipe))
    plain = train(replace(settings, recipe=recipe.override({"calibration": "none"})))
    assert calibrated.metrics["accuracy"] == plain.metrics["accuracy"]
    assert calibrated.metrics["calibration_error"] < 0.5 * plain.metrics["calibration_error"]
    stored = [Store(settings.store, "mnist").manifest(version).network for version in (1, 2)]
    assert [network.output_activation for network in stored] == ["softmax", output]
    texts = [Reader(page(settings, version)).text for version in (1, 2)]
    assert "validation data, is folded into the weights" in texts[0]
    assert "validation data, is not folded into the weights" in texts[1]
    # Both reports have the same two errors: what is folded in can be undone.
    found = [re.findall(r"Expected calibration error (.*?)\. The", text) for text in texts]
    assert found[0] == found[1]
