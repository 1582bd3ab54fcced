import numpy as np
import pytest

from radprobe.artifacts.tables import write_array


@pytest.mark.survives("attack", "a pickle in .npy", "neither written nor read")
def test_arrays_are_written_without_pickle(tmp_path):
    with pytest.raises(ValueError, match="Object arrays"):
        write_array(tmp_path / "a.npy", np.array([{}], object))
    assert list(tmp_path.iterdir()) == []
