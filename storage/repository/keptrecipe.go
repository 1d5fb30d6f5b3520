package repository

import "github.com/replicate/replicate"

// maxRecipes bounds the recipes that an outbox keeps: those of a terabyte of files.
const maxRecipes = 64 << 20

// putRecipes keeps recipes whose chunks are known. With them the next process stores of a large file only what has changed, though the packs are
// in the storage, which a training does not ask. A nil cache keeps none.
func (c *Cache) putRecipes(recipes map[Ref]*recipe) {
	if c == nil {
		return
	}
	for ref, r := range recipes {
		if r.chunks == nil || c.has(ref) {
			continue
		}
		own := make([]Extent, len(r.chunks))
		for i, x := range r.chunks {
			if own[i] = x; x.Pack == ref.Pack {
				own[i].Pack = replicate.Hash{}
			}
		}
		if raw, err := encodeRecipe(own); err == nil && hashOf(raw) == ref.Hash {
			c.put(ref, raw)
		}
	}
}

// recipe returns the chunks of a file of some size whose recipe is kept.
func (c *Cache) recipe(ref Ref, size int64) (chunks []Extent, ok bool) {
	raw, ok := c.get(ref)
	if !ok {
		return nil, false
	}
	chunks, err := decodeRecipe(raw, ref.Pack, size)
	return chunks, err == nil
}
