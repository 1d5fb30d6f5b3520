// Package image makes the environment that jobs run in: a Docker image with what replicate.yaml asks for, built once on each host.
//
// An environment is a base image and a chain of layers above it, in the order script, install lines, requirements, as install brings what pip needs to
// compile. Each layer has a key, which is a hash of everything that decides about its content and of the key below it; its image is replicate-env:<key>. So an
// edit rebuilds from there only, and nothing changed is one look at the list of images. The working directory is in no image, and no secret is: credentials
// reach a step on stdin, and what is made of them lies in memory.
//
// A layer is a container that one step runs in under our supervisor, and a commit of it. The container is named after the key, and its name is the
// lock: whoever comes second adopts it. A build goes on without the client that began it; what a lost client left is finished by the next.
//
// New reads files and decides on a Plan; Plan.Keys is pure; a Builder does the work. The package knows Docker and the description of a job. It knows nothing
// of experiments and of what people see.
package image
