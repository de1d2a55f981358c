"""Heads that tell from an earlier layer what the last one will answer, in closed form."""

from dataclasses import dataclass

import numpy as np

from onnxslim_bert.arrays import Array

FOLDS = 4
RIDGES = 10.0 ** np.arange(-4, 3)  # of the variance of an input, which is 1 after scaling


@dataclass(frozen=True)
class Head:
    """answers = states @ weight + bias. weight: [width, classes]; bias: [classes]; both float32."""

    weight: Array
    bias: Array


def fit_head(states: Array, answers: Array) -> tuple[Head, Array]:
    """The head by ridge regression from `states` to `answers`, and what heads answer to rows they were not fitted on.

    states: [rows, width]. answers: [rows, classes]. Each of FOLDS parts of the rows is answered by a head fitted on the
    others, [rows, classes]; the ridge is the one with which those come nearest. The head itself is fitted on all rows.
    Hoerl and Kennard 1970, https://doi.org/10.1080/00401706.1970.10488634
    """
    scale = np.maximum(states.std(0, dtype=np.float64), 1e-6)
    scaled, wanted = states / scale, answers.astype(np.float64)
    folds = np.arange(len(states)) % FOLDS
    unseen = np.zeros((len(RIDGES), *answers.shape))
    for fold in range(FOLDS):
        fitted = _fits(scaled[folds != fold], wanted[folds != fold])
        unseen[:, folds == fold] = [scaled[folds == fold] @ weight + bias for weight, bias in fitted]
    best = int(np.square(unseen - wanted).mean((1, 2)).argmin())
    weight, bias = _fits(scaled, wanted)[best]
    return Head((weight / scale[:, None]).astype(np.float32), bias.astype(np.float32)), unseen[best]


def _fits(states: Array, answers: Array) -> list[tuple[Array, Array]]:
    """The weight and the bias for each of RIDGES."""
    mean, middle = states.mean(0), answers.mean(0)
    centred = states - mean
    values, vectors = np.linalg.eigh(centred.T @ centred / len(states))
    along = vectors.T @ (centred.T @ (answers - middle) / len(states))
    weights = [vectors @ (along / (np.maximum(values, 0) + ridge)[:, None]) for ridge in RIDGES]
    return [(weight, middle - mean @ weight) for weight in weights]
