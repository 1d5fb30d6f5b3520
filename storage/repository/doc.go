// Package repository says what the bytes in a storage mean: chunks, packs, trees, records, commits, streams.
package repository
