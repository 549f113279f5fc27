"""How a speed is measured: inputs, parity gate, timing in turns, ceilings of the machine."""
