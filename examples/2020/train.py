"""The tutorial as it was in 2020, to show that scripts of that time run as they are. It needs torch and scikit-learn."""
import argparse

import replicate
import torch
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split
from torch import nn


def train(learning_rate, num_epochs):
    experiment = replicate.init(learning_rate=learning_rate, num_epochs=num_epochs)

    print("Loading data set...")
    iris = load_iris()
    train_features, val_features, train_labels, val_labels = train_test_split(
        iris.data, iris.target, train_size=0.8, test_size=0.2, random_state=0, stratify=iris.target
    )
    train_features = torch.FloatTensor(train_features)
    val_features = torch.FloatTensor(val_features)
    train_labels = torch.LongTensor(train_labels)
    val_labels = torch.LongTensor(val_labels)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 15), nn.ReLU(), nn.Linear(15, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    criterion = nn.CrossEntropyLoss()

    for epoch in range(num_epochs):
        model.train()
        optimizer.zero_grad()
        outputs = model(train_features)
        loss = criterion(outputs, train_labels)
        loss.backward()
        optimizer.step()

        with torch.no_grad():
            model.eval()
            output = model(val_features)
            accuracy = (output.argmax(1) == val_labels).float().sum() / len(val_labels)

        print("Epoch {}, train loss: {:.3f}, validation accuracy: {:.3f}".format(epoch, loss.item(), accuracy))
        torch.save(model, "model.pth")
        experiment.commit(step=epoch, loss=loss.item(), accuracy=accuracy)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--learning_rate", type=float, default=0.01)
    parser.add_argument("--num_epochs", type=int, default=100)
    args = parser.parse_args()
    train(args.learning_rate, args.num_epochs)
