"""A softmax classifier in plain Python: what train.py trains and predict.py uses."""
import csv
import json
import math

FEATURES = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
SPECIES = ["setosa", "versicolor", "virginica"]


def read_flowers(path="iris.csv"):
    """The flowers of Fisher's data set as (four lengths in cm, number of the species)."""
    with open(path, newline="") as file:
        return [([float(row[name]) for name in FEATURES], SPECIES.index(row["species"])) for row in csv.DictReader(file)]


class Model:
    def __init__(self, mean, scale, weights=None, bias=None):
        self.mean, self.scale = mean, scale
        self.weights = weights or [[0.0] * len(mean) for _ in SPECIES]
        self.bias = bias or [0.0] * len(SPECIES)

    def standardized(self, lengths):
        return [(x - m) / s for x, m, s in zip(lengths, self.mean, self.scale)]

    def probabilities(self, lengths):
        x = self.standardized(lengths)
        scores = [sum(w * f for w, f in zip(row, x)) + b for row, b in zip(self.weights, self.bias)]
        powers = [math.exp(score - max(scores)) for score in scores]
        return [power / sum(powers) for power in powers]

    def learn(self, lengths, species, learning_rate):
        """One step of gradient descent on one flower."""
        x = self.standardized(lengths)
        for k, p in enumerate(self.probabilities(lengths)):
            error = p - (k == species)
            self.bias[k] -= learning_rate * error
            self.weights[k] = [w - learning_rate * error * f for w, f in zip(self.weights[k], x)]

    def predict(self, lengths):
        p = self.probabilities(lengths)
        return p.index(max(p))

    def evaluate(self, flowers):
        """Mean cross-entropy and accuracy."""
        loss = -sum(math.log(max(self.probabilities(x)[y], 1e-300)) for x, y in flowers) / len(flowers)
        return loss, sum(self.predict(x) == y for x, y in flowers) / len(flowers)

    def save(self, path):
        with open(path, "w") as file:
            json.dump(vars(self), file, indent=1)


def load(path):
    with open(path) as file:
        return Model(**json.load(file))
