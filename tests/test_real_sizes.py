"""Real sizes: counted on the meta device, as the published models have them; the page shows them."""

from __future__ import annotations

import pytest

from dwm_model.real_sizes import PAGE, REAL_BASES, all_rows, measure, sizes_table, with_table
from manifests.errors import DwmError


def test_the_papers_network_has_its_published_sizes() -> None:
    row = measure("fun_v1_1 5B", "hand_mesh")
    assert row.in_channels == 49
    assert row.parameters == 5_570_688_576
    assert row.lora == 66_060_288
    assert row.projection == 605_184
    assert row.tokens == 17_550


def test_v1_5_patches_two_latent_frames_and_pads_thirteen_to_fourteen() -> None:
    real = REAL_BASES["fun_v1_5 5B"]
    assert real.tokens() == 7 * 30 * 45
    assert measure("fun_v1_5 5B", "hand_mesh").projection == 49 * 8 * 3072 + 3072


@pytest.mark.slow
def test_the_page_shows_the_sizes_that_the_code_counts() -> None:
    page = PAGE.read_text()
    assert page == with_table(page, sizes_table(all_rows())), "run `python -m dwm_model.real_sizes`"


def test_wan_refuses_what_it_cannot_take_and_a_page_without_a_place_is_refused() -> None:
    with pytest.raises(DwmError, match="not made for family wan_fun_inp"):
        measure("wan_fun_inp 1.3B", "controlnet")
    with pytest.raises(DwmError, match="put them back"):
        with_table("no table here", "table")
