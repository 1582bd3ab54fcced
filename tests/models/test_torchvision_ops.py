import subprocess
import sys

from radprobe.models import torchvision_ops


def test_torchvision_and_timm_import_after_it_whatever_build_they_are():
    code = "from radprobe.models import torchvision_ops, weights; import torchvision, timm; torchvision.ops.nms"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nothing_is_declared_twice():
    assert torchvision_ops._declare() is None
