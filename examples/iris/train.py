"""Trains a classifier of iris flowers. Every epoch is a commit: the code, the data and the model as they were.

    python train.py --learning_rate=0.01
"""
import argparse
import random
import statistics

import replicate
from model import Model, read_flowers


def train(params):
    experiment = replicate.init(params)
    flowers = read_flowers()
    random.Random(0).shuffle(flowers)  # the same split for every run, so that runs can be compared
    training, test = flowers[:100], flowers[100:]
    columns = list(zip(*(lengths for lengths, _ in training)))
    model = Model([statistics.mean(c) for c in columns], [statistics.stdev(c) for c in columns])

    order = random.Random(1)
    for epoch in range(params.num_epochs):
        order.shuffle(training)
        for lengths, species in training:
            model.learn(lengths, species, params.learning_rate)
        loss, accuracy = model.evaluate(test)
        model.save("model.json")
        experiment.commit(step=epoch, loss=loss, accuracy=accuracy)
        print(f"epoch {epoch:3}  loss {loss:.4f}  accuracy {accuracy:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--learning_rate", type=float, default=0.01)
    parser.add_argument("--num_epochs", type=int, default=100)
    train(parser.parse_args())
