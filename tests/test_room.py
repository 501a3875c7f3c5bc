import shutil
from types import SimpleNamespace

import pytest

from dataset.room import describe_room

GB = 10**9


@pytest.fixture
def free(monkeypatch):
    """Sets how many bytes of the disk are free."""

    def set_free(n_bytes):
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=n_bytes))

    return set_free


def test_a_disk_that_is_too_small_is_refused_with_what_fits_and_one_that_is_just_large_enough_is_not(free, tmp_path):
    """At 224 pixels an image takes 224 x 224 x 4 + 96 x 96 x 3 = 228,352 bytes, at 128 pixels 93,184."""
    free(228_352_000 - 1)
    with pytest.raises(ValueError, match=r"1,000 images at 224x224 pixels take 0\.2 GB") as refused:
        describe_room(tmp_path, 224, 1000, 1000)
    assert str(tmp_path) in str(refused.value)
    assert "0.2 GB are free" in str(refused.value)
    assert "--image-size 223 is the largest that fits; --image-size 128 takes 93.2 MB" in str(refused.value)
    free(228_352_000)
    assert describe_room(tmp_path, 224, 1000, 1000) == ""
    free(10 * GB)
    with pytest.raises(ValueError, match="--image-size 32 is the largest that fits"):
        describe_room(tmp_path, 224, 300_000, 10 * GB // (32 * 32 * 4 + 96 * 96 * 3))
    with pytest.raises(ValueError, match="no --image-size fits"):
        describe_room(tmp_path, 224, 300_000, 10 * GB // (32 * 32 * 4 + 96 * 96 * 3) + 1)


def test_a_large_cache_is_said_and_a_smaller_one_advised(free, tmp_path):
    free(1000 * GB)
    assert describe_room(tmp_path, 224, 4_000, 4_000) == ""
    said = describe_room(tmp_path, 224, 10_015, 10_015)
    assert said.startswith("Decoding 10,015 images takes 2.3 GB") and "1000.0 GB free" in said and "128" not in said
    assert "--image-size 128 takes 37.3 GB" in describe_room(tmp_path, 224, 400_000, 400_000)
    assert "--image-size" not in describe_room(tmp_path, 128, 400_000, 400_000)


def test_only_what_is_left_to_decode_needs_room(free, tmp_path):
    free(1 * GB)
    assert describe_room(tmp_path, 224, 4_000, 400_000) == ""
