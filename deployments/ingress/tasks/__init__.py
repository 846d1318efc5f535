"""Work that outlives its request: asked for, done in a worker, and followed."""
