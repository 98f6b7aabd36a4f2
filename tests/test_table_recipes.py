"Recipes: every name and variant makes settings that the loop accepts, with the numbers of the paper where they are the paper's."
import pytest
from pe_nb.embeddings.tables import TableEmbedding
from pe_nb.evolution import Settings, evolve, steps
from pe_nb.generators.table_recipes import ADULT_SPIKES, CONSISTENT, consistent_tab_pe, recipe, sharp_adult, steady_rates
from pe_nb.generators.tables import EXAMPLES, Tables, example
from pe_nb.records import Column, Records, Schema
from pe_nb.release import Budget, SeededNoise


@pytest.mark.parametrize('name', EXAMPLES)
@pytest.mark.parametrize('variant', ['paper', 'reference', 'mended', 'consistent', 'spikes'])
def test_every_recipe_is_a_valid_schedule(name, variant):
    if (variant == 'consistent' and name == 'adult') or (variant == 'spikes' and name != 'adult'):
        with pytest.raises(ValueError, match='variant'): recipe(name, variant)
        return
    plan = steps(Settings(**recipe(name, variant, seed=3)), Tables(Schema((Column('x', 'float', low=0., high=1.),))))
    rows, T = EXAMPLES[name][variant == 'reference']
    if variant in ('paper', 'reference', 'mended', 'spikes'): assert len(plan) == T + 1 and plan[-1].samples == rows and plan[1].degree in (.5, dict(categorical=.5, numeric=.25))
    if variant == 'consistent': assert {s.selection for s in plan[1:]} == {'consistent'} and plan[-1].rows == plan[-1].samples and plan[0].samples == plan[1].rows


def test_variants_of_the_paper_are_unchanged():
    for name in EXAMPLES:
        for variant in ('paper', 'reference', 'mended'): assert recipe(name, variant) == example(name, variant)


@pytest.mark.parametrize('T', [2, 3, 10, 57])
def test_rates_fall_by_one_factor(T):
    r = steady_rates(T, .4, .02, .1)
    assert len(r) == T + 1 and r[0] == r[1] == .4 and r[-1] == .1
    ratios = [b/a for a, b in zip(r[1:-1], r[2:-1])]
    assert all(abs(x - ratios[0]) < 1e-12 for x in ratios) and (T < 3 or abs(r[-2] - .02) < 1e-12)


@pytest.mark.parametrize('wrong', [lambda: steady_rates(1), lambda: steady_rates(5, end=0), lambda: steady_rates(5, start=.1, end=.2), lambda: steady_rates(5, last=2), lambda: steady_rates(True),
                                   lambda: recipe('iris'), lambda: recipe('xor', 'best'), lambda: recipe('adult'), lambda: recipe('xor', 'spikes')])
def test_bad_input(wrong):
    with pytest.raises(ValueError, match='must'): wrong()


def test_options_reach_the_settings():
    assert recipe('xor', samples=10, final=7, seed=4)['samples'] == [40] + [10]*19 + [7] and recipe('xor', seed=4)['seed'] == 4
    assert recipe('artificial_characters')['prior'] == CONSISTENT['artificial_characters']['prior']
    assert sharp_adult(seed=2)['seed'] == 2 and set(ADULT_SPIKES.values()) == {0}


def test_last_rows_are_each_a_small_step_away():
    import numpy as np
    import pandas as pd
    schema = Schema((Column('x', 'float', low=0., high=1.),))
    private = Records.table(pd.DataFrame({'x': np.random.default_rng(0).normal(.3, .02, 500).clip(0, 1)}), schema)
    last = list(evolve(private, Tables(schema), TableEmbedding(schema), Settings(**consistent_tab_pe(20, 6, final=300)), Budget(epsilon=4., delta=1e-5), noise=SeededNoise(0)))[-1]
    x = last.records.data['x'].to_numpy()
    assert len(x) == 300 and len(np.unique(x)) > 250 and abs(np.median(x) - .3) < .1
