"""Draws belong to the sample."""

from __future__ import annotations

import torch

from pellucid.metrics.draws import noise_field, sample_seeds, tie_order


def test_a_seed_depends_on_the_place_alone() -> None:
    few = sample_seeds(torch.Generator().manual_seed(4), 3)
    many = sample_seeds(torch.Generator().manual_seed(4), 50)
    assert torch.equal(few, many[:3])
    assert len(set(many.tolist())) == 50


def test_none_means_seed_0_and_other_seeds_differ() -> None:
    assert torch.equal(sample_seeds(None, 4), sample_seeds(torch.Generator().manual_seed(0), 4))
    assert not torch.equal(sample_seeds(None, 4), sample_seeds(torch.Generator().manual_seed(1), 4))


def test_the_generator_moves_on() -> None:
    generator = torch.Generator().manual_seed(0)
    assert not torch.equal(sample_seeds(generator, 4), sample_seeds(generator, 4))


def test_a_tie_order_is_a_permutation_that_repeats() -> None:
    assert sorted(tie_order(3, 1000).tolist()) == list(range(1000))
    assert torch.equal(tie_order(3, 1000), tie_order(3, 1000))
    assert not torch.equal(tie_order(3, 1000), tie_order(4, 1000))


def test_noise_is_standard_normal_and_repeats() -> None:
    field = noise_field(11, (3, 200, 200))
    assert field.dtype == torch.float32
    assert abs(float(field.mean())) < 0.01
    assert abs(float(field.std()) - 1) < 0.01
    assert torch.equal(field, noise_field(11, (3, 200, 200)))
    assert not torch.equal(field, noise_field(12, (3, 200, 200)))
