"""Cell pages: one small page for each dataset, backbone and protocol that has scores, beside the explorer."""
