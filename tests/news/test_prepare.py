"""How observations are prepared: which texts are one, and which columns differ nowhere."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from pipelines.news.fitting.path import Choice
from pipelines.news.fitting.solve import refit, twins_of_target
from pipelines.news.prepare import text_groups


def test_texts_that_differ_in_case_punctuation_or_space_alone_are_one():
    texts = ["Profit warning.", "profit warning", "profit\u00a0warning!", "ｐｒｏｆｉｔ WARNING"]
    groups = text_groups(pa.array([*texts, "profit warnings", "한국 증시", "한국증시"]))
    assert len(set(groups[:4].tolist())) == 1
    assert len(set(groups.tolist())) == 4


def problem_with_a_gap():
    """Columns 0 and 1 differ in the last row alone, where target 1 is undefined."""
    X = np.zeros((8, 3))
    X[:3, 0] = X[:3, 1] = 1.0
    X[7, 0] = 1.0
    X[4:6, 2] = 1.0
    Y = np.tile(np.arange(8.0)[:, None], (1, 2))
    Y[7, 1] = np.nan
    columns = SimpleNamespace(preference=np.array([1, 0, 2]))
    return SimpleNamespace(X=sp.csc_matrix(X), Y=Y, columns=columns, n_folds=1)


def test_columns_that_differ_where_a_target_is_undefined_are_twins_of_that_target():
    problem = problem_with_a_gap()
    assert twins_of_target(problem, 0).kept.tolist() == [0, 1, 2]
    assert twins_of_target(problem, 1).kept.tolist() == [1, 2]


def test_refit_moves_all_weight_of_a_targets_twins_to_one_of_them():
    problem = problem_with_a_gap()
    answer = {
        "alphas": np.array([0.1]),
        "indices": np.array([0, 1, 2]),
        "data": np.array([0.25, 0.5, -1.0]),
        "indptr": np.array([0, 3]),
        "intercepts": np.array([0.3]),
        "gaps": np.array([1e-9]),
    }
    results = {"t00-f001-a0000": answer, "t01-f001-a0000": answer}
    choices = [Choice(0, 1.0, 0.1)] * 2
    whole, gapped = refit(problem, results, [np.array([0.1])] * 2, choices, 10)
    assert whole.support.tolist() == [0, 1, 2]
    assert whole.twins == {}
    assert gapped.support.tolist() == [1, 2]
    np.testing.assert_allclose(gapped.values, [0.75, -1.0])
    assert gapped.twins[1].tolist() == [0]
