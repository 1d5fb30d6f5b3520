// Package storagetest holds what every storage.Store must do, as tests, and stores that are evil in ways real ones are.
//
// Conformance runs the tests. The evil stores wrap any other one, evil ones too, and a wrapped storage.Local stays one:
//
//   - Faulty: chosen calls fail, before or after they took effect.
//   - Slow: calls wait, for as long or for what the test says.
//   - Late: listings lag behind by up to a bound.
//   - Lying: flipped bits, short and long reads, wrong sizes.
//   - Forgetful: objects vanish.
//   - Stopped: the process dies at the n-th call, before or after it took effect, and no call after that does anything.
//
// They know nothing of what the bytes mean. Start… run servers of object storage on this machine. The packages below this one are require,
// which says what a test needs from its machine, servers, which runs those servers, and badnet, a network that is bad in ways real ones are.
package storagetest
