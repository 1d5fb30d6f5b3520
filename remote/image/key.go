package image

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"

	"github.com/replicate/replicate/remote/docker"
)

// recipe is part of every key: another way of doing the same steps makes other images.
const recipe = 1

// keyDigits is how much of a hash is a key: names of containers stay readable, and nobody looks for collisions with himself.
const keyDigits = 20

// A Layer is one step of an environment on a host.
type Layer struct {
	Key    string
	Parent string // the key below
	Name   string // what people call it: "install: apt-get install -y libsndfile1"
}

// Keys returns the layers above a base image. No secret and no path of this machine is in a key. The installer's version is not in it either: it is that in
// the image below, which the key below stands for.
func (p *Plan) Keys(base docker.Image) []Layer {
	key := keyOf(map[string]any{"base": base.ID, "platform": base.Platform})
	var layers []Layer
	for i := range p.steps {
		content := maps.Clone(p.steps[i].key)
		content["parent"] = key
		layer := Layer{Key: keyOf(content), Parent: key, Name: p.steps[i].name}
		layers = append(layers, layer)
		key = layer.Key
	}
	return layers
}

// keyOf hashes JSON, in which keys are sorted.
func keyOf(content map[string]any) string {
	content["recipe"] = recipe
	text, err := json.Marshal(content)
	if err != nil {
		panic(err) // it is made of texts and numbers
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])[:keyDigits]
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}
