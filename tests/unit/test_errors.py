from __future__ import annotations

import inspect
import pickle

import pytest

from maskrcnn import errors


def every_error() -> list[errors.MaskrcnnError]:
    classes = [one for _, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, errors.MaskrcnnError)]
    built: list[errors.MaskrcnnError] = []
    for one in classes:
        if issubclass(one, errors.InputError):
            built.append(one("--score-threshold", "must be in [0, 1], got 1.5", "the config", "take 0.5"))
        elif issubclass(one, errors.StorageError):
            built.append(one("s3://bucket/key", "no such object"))
        elif issubclass(one, errors.NonFiniteError):
            built.append(one(("step 17 (loss_mask inf) on image 1",)))
        else:
            built.append(one("broken"))
    return built


@pytest.mark.parametrize("error", every_error(), ids=lambda error: type(error).__name__)
def test_every_error_survives_pickle(error: errors.MaskrcnnError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_an_input_error_names_thing_rule_place_and_remedy() -> None:
    error = errors.InputError("annotation 17", "must have a bbox wider than 0, got 0.0", "s3://b/train.json", "drop it")
    assert str(error) == "annotation 17 must have a bbox wider than 0, got 0.0, in s3://b/train.json; drop it"


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    drawn = errors.__doc__ or ""
    for _, one in inspect.getmembers(errors, inspect.isclass):
        if issubclass(one, errors.MaskrcnnError):
            assert one.__name__ in drawn
