from radprobe.models import torchvision_ops  # noqa: F401 - before the tests import timm
