"""Random numbers that nobody can guess, or that an experiment can repeat."""

import os
import secrets

import numpy as np
import torch
import torch.distributed as dist

# Where torch's CPU generator keeps the 624 words of its Mersenne Twister, each in 8 bytes.
_TWISTER = slice(24, 24 + 624 * 8)


def secret_key(seed: int | None) -> int:
    """The seed, or 128 bits from the operating system, the same in every process."""
    if seed is not None:
        return seed
    words = torch.tensor([secrets.randbits(32) for _ in range(4)])
    if is_distributed():
        words = words.to("cuda" if dist.get_backend() == "nccl" else "cpu")
        dist.broadcast(words, src=0)
    return sum(word << 32 * place for place, word in enumerate(words.tolist()))


def secret_generator(device: str | torch.device = "cpu") -> torch.Generator:
    """A generator that starts from the operating system's randomness, whatever the global seeds are.

    On CPUs `torch.Generator.manual_seed` looks at 32 bits only, few enough to try all; here the whole state is drawn.
    Neither torch's CPU nor its GPU generator is a cryptographic one.

    >>> bool((torch.randn(4, generator=secret_generator()) != torch.randn(4, generator=secret_generator())).all())
    True
    """
    generator = torch.Generator(device)
    generator.manual_seed(secrets.randbits(63))
    state = generator.get_state()
    if generator.device.type == "cpu" and len(state) >= _TWISTER.stop:
        words = torch.from_numpy(np.frombuffer(os.urandom(624 * 4), np.uint32).astype(np.int64))
        state[_TWISTER] = words.view(torch.uint8)
        generator.set_state(state)
    return generator


def seed_of_step(key: int, step: int) -> int:
    """A seed for torch of a key and a step, unlike those that the sampler draws from."""
    return int(np.random.SeedSequence(key, spawn_key=(step, 1)).generate_state(1, np.uint64)[0] >> 1)


def is_distributed() -> bool:
    """Whether this is one of several processes."""
    return dist.is_available() and dist.is_initialized()
