"""The forks' formulas, pair by pair and bit by bit in double precision: what the tests hold the layers against."""

import math

import numpy as np


def sign(z):
    return 1 if z >= 0 else -1


def similarity(product, classes):
    """-1 unknown, 0, 1: the rule of dhn-caffe and HashNet."""
    return -1 if product < 0 or product >= classes else int(product > 0)


def pair_loss(theta, s, threshold):
    return theta * (1 - s) if 0 <= threshold <= theta else math.log(1 + math.exp(theta)) - s * theta


def sigmoid(theta):
    return 1 / (1 + math.exp(-theta))


def bit_loss(z, threshold):
    distance = abs(z) - 1
    return abs(distance - math.log(2) if 0 < threshold < distance else math.log(math.cosh(distance)))


def quantization(codes, threshold=-1, weight=1):
    """hash-caffe's QuantizationLoss: (printed, gradient)."""
    rows, bits = codes.shape
    printed = sum(bit_loss(z, threshold) for z in codes.ravel()) / (rows * bits)
    gradient = np.array([[weight / rows * sign(z) * math.tanh(abs(z) - 1) for z in row] for row in codes])
    return printed, gradient


def self_pairs(codes, labels, threshold, weight, unknown):
    """(printed, gradient) over all ordered pairs of one batch; unknown: whether some pairs are."""
    codes, labels = np.float64(codes), np.float64(labels)
    total, count, gradient = 0.0, 0, np.zeros_like(codes)
    for z, y in zip(codes, labels, strict=True):
        for other_z, other_y in zip(codes, labels, strict=True):
            s = similarity(y @ other_y, len(y)) if unknown else int(y @ other_y > 0)
            if s >= 0:
                count += 1
                total += pair_loss(z @ other_z, s, threshold)
    for i, (z, y) in enumerate(zip(codes, labels, strict=True)):
        for other_z, other_y in zip(codes, labels, strict=True):
            s = similarity(y @ other_y, len(y)) if unknown else int(y @ other_y > 0)
            if s >= 0:
                gradient[i] += weight * 2 / count * (sigmoid(z @ other_z) - s) * other_z
    return total / max(count, 1), gradient


def dhn_caffe(codes, labels, l_threshold=-1, q_threshold=-1, l_lambda=1, q_gamma=1):
    """(printed pairwise loss, printed quantization loss, gradient)."""
    pairwise, gradient = self_pairs(codes, labels, l_threshold, l_lambda, unknown=True)
    quantized, pull = quantization(np.float64(codes), q_threshold, q_gamma)
    return pairwise, quantized, gradient + pull


def hashnet(first, first_labels, second, second_labels, class_num=1, l_threshold=-1, l_lambda=1, sigmoid_param=1,
            continous_similarity=False):  # fmt: skip
    """(printed, gradient of the first codes, gradient of the second)."""
    first, second = np.float64(first), np.float64(second)
    y1, y2 = np.float64(first_labels), np.float64(second_labels)
    total, weights, gradients = 0.0, 0.0, [np.zeros_like(first), np.zeros_like(second)]
    for i in range(len(first)):
        for j in range(len(second)):
            s = similarity(y1[i] @ y2[j], y1.shape[1])
            if s < 0:
                continue
            theta = sigmoid_param * (first[i] @ second[j])
            weight = class_num if s else 1
            total += weight * pair_loss(theta, s, l_threshold)
            weights += weight
            slope = 2 * weight * (sigmoid(theta) - s)
            if continous_similarity:
                c = (y1[i] @ y2[j]) ** 2 / ((y1[i] @ y1[i] or 1) * (y2[j] @ y2[j] or 1))
                slope *= 4 * (c or 0.25)
            gradients[0][i] += l_lambda * slope * second[j]
            gradients[1][j] += l_lambda * slope * first[i]
    for gradient in gradients:
        gradient /= weights or 1
        for index in range(len(first)):  # of B * K values
            gradient.flat[index] *= sigmoid_param
    return total / (weights or 1), *gradients
