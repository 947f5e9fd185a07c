"""Recipes: parsing of sizes, counts and times, layers, contradictions, and the recipes that come with datagen."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from datagen import recipe
from datagen.errors import UsageError
from datagen.records import FIT, Recipe, group_of, parse_count, parse_seconds, parse_size


@pytest.mark.parametrize(
    ("given", "size"), [(64, (64, 64)), ("64", (64, 64)), ("48x64", (48, 64)), ("48 X 64", (48, 64)), ("48×64", (48, 64)), ([32, 8], (32, 8)), ((9, 9), (9, 9))]
)
def test_sizes(given: object, size: tuple[int, int]) -> None:
    assert Recipe(size=given).size == size


@pytest.mark.parametrize("given", [7, 1025, "64x", "x", "64x64x3", True, 1.5, [], [64], "-64", "6 4"])
def test_sizes_that_are_refused(given: object) -> None:
    with pytest.raises(ValidationError):
        Recipe(size=given)


@pytest.mark.parametrize(("given", "count"), [("20k", 20_000), ("2M", 2_000_000), ("1.5M", 1_500_000), ("1G", 10**9), (" 7 ", 7), (7, 7), ("0.001k", 1)])
def test_counts(given: object, count: int) -> None:
    assert Recipe(images=given).images == count


@pytest.mark.parametrize("given", ["1.5", "0", 0, -1, "1e3", "2T", "", "nan", "9" * 400, 10**13, True])
def test_counts_that_are_refused(given: object) -> None:
    with pytest.raises(ValidationError):
        Recipe(images=given)


@pytest.mark.parametrize(
    ("given", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("1h 30m", 5400), ("2d", 172_800), ("1.5m", 90), (30, 30)]
)
def test_times(given: object, seconds: float) -> None:
    assert Recipe(budget=given).budget == seconds


@pytest.mark.parametrize("given", ["10 minutes", "m", "0", "-5m", "nan", "inf", "10:30", "1w", ""])
def test_times_that_are_refused(given: object) -> None:
    with pytest.raises(ValidationError):
        Recipe(budget=given)


@given(st.text(max_size=12))
@example("0\x1f")
@example("٣")
def test_parsers_take_any_text(text: str) -> None:
    for parser, kinds in [(parse_size, (tuple, str)), (parse_count, (int, str)), (parse_seconds, (float, int, str))]:
        assert isinstance(parser(text), kinds)


@given(st.integers(8, 1024), st.integers(8, 1024), st.integers(1, 10**6))
def test_settings_read_back_as_they_were(height: int, width: int, batch: int) -> None:
    first = Recipe(size=f"{height}x{width}", images=batch, budget=None)
    assert Recipe(**first.settings()) == first


def test_later_layers_win_and_none_is_not_given() -> None:
    made = recipe.merge(("file", {"batch": 8, "width": 16}), ("flag", {"batch": 32, "width": None}))
    assert (made.batch, made.width) == (32, 16)
    assert made.origins == {"batch": "flag", "width": "file"}
    planned = made.planned(batch=64, latent=5)
    assert (planned.batch, planned.latent) == (32, 5), "the plan fills what was left open, and nothing else"
    assert planned.origins["latent"] == "plan"


@pytest.mark.parametrize(("first", "second"), recipe.EXCLUSIVE)
def test_exclusive_settings(first: str, second: str) -> None:
    """Row C2: both in one layer contradict each other; in two layers the later one counts."""
    values = {"images": 100, "budget": "3m", "test": "x", "holdout": 0.2, "quick": True, "repeats": 2, "steps": 50, "full": True}
    values |= {"per_class": 5, "count": 9, "quota": "x.json", "balance_with": "x"}
    one, other = {first: values[first]}, {second: values[second]}
    with pytest.raises(UsageError, match="contradict each other") as caught:
        recipe.merge(("flag", one | other))
    assert f"--{first} {values[first]}" in caught.value.line()
    assert f"--{second} {values[second]}" in caught.value.line()
    default = Recipe()
    for earlier, later, gone in [(one, other, first), (other, one, second)]:
        made = recipe.merge(("recipe x", earlier), ("flag", later))
        assert getattr(made, gone) == getattr(default, gone)
        assert set(made.origins) == set(later)


def test_a_value_names_what_is_allowed_and_where_it_stood(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("resize = 'zoom'\n")
    with pytest.raises(UsageError) as caught:
        recipe.gather(str(file))
    assert caught.value.line() == f"recipe {file}: resize = 'zoom' is not allowed; resize takes one of crop, pad, stretch"


@pytest.mark.parametrize(
    ("text", "words"), [("a = ", "is not TOML"), ("[fit]\nbatch = 3\n", "unknown key 'fit'"), ("bach = 3\n", "did you mean 'batch'"), ("\xff", "is not TOML")]
)
def test_files_that_are_no_recipes(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=words):
        recipe.gather(str(file))


def test_the_environment_gives_settings() -> None:
    assert recipe.environment({"DATAGEN_BATCH": "8", "DATAGEN_CACHE": "/x", "DATAGEN_UNKNOWN": "1", "HOME": "/"}) == {"batch": "8"}
    with pytest.raises(UsageError, match="DATAGEN_BUGDET: is no setting; did you mean DATAGEN_BUDGET"):
        recipe.environment({"DATAGEN_BUGDET": "3m"})


def test_every_setting_says_what_it_is_and_what_it_takes() -> None:
    for key, field in recipe.keys().items():
        assert field.description
        assert not field.description.endswith(".")
        assert "None" not in recipe.allowed(key)
    assert set(recipe.keys()) == set(Recipe.model_fields) - {"origins"}


@pytest.mark.parametrize("name", recipe.builtin())
def test_recipes_that_come_with_datagen(name: str) -> None:
    settings, about = recipe.read(name)
    made = recipe.gather(name)
    assert all(made.origins[key] == f"recipe {name}" for key in settings)
    assert set(about) == {"title", "suits", "fits", "measured"}
    assert all(isinstance(text, str) and text for key, text in about.items() if key != "fits")


def test_the_promised_recipes_are_there() -> None:
    assert set(recipe.builtin()) >= {"digits", "grey28", "colour32", "colour64"}


def test_differences_name_both_values() -> None:
    old, new = Recipe(batch=8).settings(FIT), Recipe(batch=16).settings(FIT)
    assert recipe.differences(old, new) == ["batch: 8, now 16"]
    assert group_of(Recipe.model_fields["batch"]) == FIT


def test_the_recipe_that_fits_fills_what_is_at_its_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = 'size = 8\nfamily = "gan"\nbeta = 0.5\nwidth = 12\nimages = 9\n[about]\n'
    (tmp_path / "small.toml").write_text(settings + 'fits = { pixels = [1, 100], channels = 1, images = [50, 500], device = "cpu" }\n')
    monkeypatch.setattr(recipe, "builtin_folder", lambda: tmp_path)
    made = recipe.suited(recipe.gather(None, [], width=7), (1, 8, 8), 100, "cpu")
    assert (made.family, made.beta, made.width, made.images, made.size) == ("gan", 0.5, 7, None, None)
    assert made.origins["family"] == made.origins["beta"] == "recipe small" and made.origins["width"] == "flag"
    assert recipe.suited(recipe.gather(None, [], family="cvae"), (1, 8, 8), 100, "cpu").family == "cvae", "what the user says stays"
    given = recipe.gather(str(tmp_path / "small.toml"))
    assert recipe.suited(given, (1, 8, 8), 100, "cpu") == given
    for shape, images, device in [((3, 8, 8), 100, "cpu"), ((1, 20, 20), 100, "cpu"), ((1, 8, 8), 49, "cpu"), ((1, 8, 8), 100, "cuda")]:
        assert recipe.fitting(shape, images, device) is None


def test_no_data_fits_two_recipes_and_all_facts_are_known() -> None:
    for name in recipe.builtin():
        assert set(recipe.read(name)[1].get("fits", {})) <= {"pixels", "channels", "images", "device"}
    for side in (8, 16, 28, 32, 48, 64, 90, 256):
        for channels in (1, 3):
            for images in (100, 10_000):
                fitting = [n for n in recipe.builtin() if _fits(n, side * side, channels, images)]
                assert len(fitting) <= 1 and recipe.fitting((channels, side, side), images, "cpu") == (fitting[0] if fitting else None)


def _fits(name: str, pixels: int, channels: int, images: int) -> bool:
    fits = recipe.read(name)[1]["fits"]
    low, high = fits.get("pixels", [1, 10**9])
    least, most = fits.get("images", [1, 10**9])
    return low <= pixels <= high and fits.get("channels", channels) == channels and least <= images <= most and fits.get("device", "cpu") == "cpu"
