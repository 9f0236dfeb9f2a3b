"""Settings of contracts and of the hardware's making."""

from __future__ import annotations

import pytest

from wattledger import build
from wattledger.config import parse_config
from wattledger.config.site_market import embodied, market
from wattledger.errors import ConfigError
from wattledger.model.embodied import Embodied
from wattledger.model.market import Contract, Market
from wattledger.units import NS_PER_S, PPM, micro

JAN_2026_NS = 1_767_225_600 * NS_PER_S


def faults(text: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text)
    return dict(caught.value.faults)


def test_without_contracts_and_residual_mix_there_is_no_market() -> None:
    assert market(parse_config("")) is None
    assert market(parse_config("[site]\ncontract = []")) is None
    assert build.site_factors(parse_config("")).market is None


def test_contracts_and_the_residual_mix() -> None:
    config = parse_config(
        '[site]\nmarket_intensity = 410.5\n[[site.contract]]\nname = "wind"\nshare = 0.6\n'
        "intensity = 11\nsince = 2026-01-01T00:00:00Z\n"
    )
    wind = Contract("wind", 600_000, micro(11), JAN_2026_NS)
    assert market(config) == Market((wind,), micro(410.5))
    site = build.site_factors(config)
    before, after = site.at(JAN_2026_NS - 1), site.at(JAN_2026_NS)
    assert before.market is not None and before.market.contracts == ()
    assert after.market is not None and after.market.contracts == (wind,)


def test_an_instant_is_one_however_it_is_written() -> None:
    for written in ("2026-01-01T00:00:00Z", "2026-01-01T01:00:00+01:00", '"2026-01-01T00:00Z"'):
        config = parse_config(f"[[site.contract]]\nsince = {written}\n")
        assert config.site.contract is not None
        assert config.site.contract[0].since == JAN_2026_NS


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[site]\nmarket_intensity = -1", "site.market_intensity"),
        ("[[site.contract]]\nshare = 1.01", "site.contract[0].share"),
        ("[[site.contract]]\nintensity = nan", "site.contract[0].intensity"),
        ("[[site.contract]]\nsince = 2026-01-01T00:00:00", "site.contract[0].since"),
        ("[[site.contract]]\nsince = 2026-01-01", "site.contract[0].since"),
        ('[[site.contract]]\nsince = "soon"', "site.contract[0].since"),
        ("[[site.contract]]\nwatts = 3", "site.contract[0].watts"),
        (
            "[[site.contract]]\nsince = 2026-01-01T00:00:00Z\nuntil = 2026-01-01T00:00:00Z",
            "site.contract[0].until",
        ),
        (
            "[[site.contract]]\nshare = 0.6\n[[site.contract]]\nsince = 2026-01-01T00:00:00Z",
            "site.contract[1].share",
        ),
        (
            "[[site.contract]]\nshare = 0.5\n[[site.contract]]\nshare = 0.500003",
            "site.contract[0].share",
        ),
        ("[site]\nprice_per_kwh = 1e-7", "site.price_per_kwh"),
        ('[site]\ncurrency = "seventeen letters"', "site.currency"),
        ("[embodied]\ngpu_kg = -1", "embodied.gpu_kg"),
        ('[embodied.gpu_kg]\nH100 = "heavy"', "embodied.gpu_kg"),
        ("[embodied]\nhost_kg = true", "embodied.host_kg"),
        ('[embodied]\nlifetime = "1h"', "embodied.lifetime"),
    ],
)
def test_faults_are_named(text: str, key: str) -> None:
    assert key in faults(text)


def test_contracts_one_after_the_other_may_each_be_of_all() -> None:
    config = parse_config(
        "[[site.contract]]\nuntil = 2026-01-01T00:00:00Z\n"
        "[[site.contract]]\nsince = 2026-01-01T00:00:00Z\n"
    )
    assert market(config) is not None


def test_shares_may_be_off_by_their_rounding() -> None:
    text = "[[site.contract]]\nshare = 0.1666666666667\nintensity = 12\n" * 6
    found = market(parse_config(text))
    assert found is not None
    assert sum(one.share_ppm for one in found.contracts) > PPM
    assert found.ug_per_kwh(10**9) == pytest.approx(micro(12), rel=1e-5)  # and nothing is left


def test_the_least_price_and_the_longest_currency() -> None:
    site = parse_config('[site]\nprice_per_kwh = 1e-6\ncurrency = "sixteen letters."').site
    assert (site.price_per_kwh, site.currency) == (1e-6, "sixteen letters.")
    assert parse_config("[site]\nprice_per_kwh = 0").site.price_per_kwh == 0


def test_the_hardware() -> None:
    assert embodied(parse_config("")) == Embodied()
    text = '[embodied]\nhost_kg = 1500\nlifetime = "1825d"\ngpu_kg = 150'
    made = embodied(parse_config(text))
    assert made == Embodied(True, (("*", 150 * 10**9),), 1500 * 10**9, 1825 * 86_400 * NS_PER_S)
    assert not embodied(parse_config("[embodied]\nenabled = false")).enabled
