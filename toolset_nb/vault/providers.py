"""The models behind executePrompt, batchExecutePrompt, generateImage and listModels.

A provider has what `Simulated` has. That one is the one that tests,
data and evaluation use: it calls nothing, its answers depend on the prompt alone and say that they are simulated.
"""

import hashlib
import io

ASPECTS = {"1:1": (64, 64), "3:4": (48, 64), "4:3": (64, 48), "9:16": (36, 64), "16:9": (64, 36)}


class Simulated:
    """No model at all: deterministic answers for tests, data and evaluation."""

    models = [  # provider, model, name for people; the first is the default
        ("simulated", "sim-small", "Simulated (small)"),
        ("simulated", "sim-large", "Simulated (large)"),
        ("openai", "gpt-5-mini", "GPT-5 mini (simulated here)"),
        ("anthropic", "claude-sonnet-4", "Claude Sonnet 4 (simulated here)"),
        ("google", "gemini-2.5-flash", "Gemini 2.5 Flash (simulated here)"),
    ]

    def complete(self, prompt: str, provider: str, model: str) -> str:
        """A text that names the prompt's beginning and a number that only the prompt decides."""
        mark = hashlib.sha256(prompt.encode()).hexdigest()[:8]
        return f"[simulated] Answer {mark} to: {' '.join(prompt.split())[:200]}"

    def draw(self, prompt: str, size: tuple[int, int]) -> bytes:
        """A one-coloured PNG; the colour is decided by the prompt."""
        from PIL import Image

        buffer = io.BytesIO()
        Image.new("RGB", size, tuple(hashlib.sha256(prompt.encode()).digest()[:3])).save(buffer, "PNG")
        return buffer.getvalue()
