"""How a thing is fitted: frozen features, neighbours, the linear grid, decoders."""
