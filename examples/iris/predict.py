"""Names flowers with a trained model.

    python predict.py model.json                     # all of iris.csv: how many are right
    python predict.py model.json 5.1 3.5 1.4 0.2     # one flower: sepal length and width, petal length and width in cm
"""
import sys

from model import SPECIES, load, read_flowers

if len(sys.argv) not in (2, 6):
    sys.exit(__doc__)
model = load(sys.argv[1])
if len(sys.argv) == 6:
    print(SPECIES[model.predict([float(length) for length in sys.argv[2:]])])
else:
    flowers = read_flowers()
    right = sum(model.predict(lengths) == species for lengths, species in flowers)
    print(f"{right} of {len(flowers)} flowers named right")
