"""From networks to images: frames, tiles, streams, refinement."""
