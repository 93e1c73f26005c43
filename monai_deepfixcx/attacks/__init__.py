"""What an attacker gets back from codes: reconstruction, re-identification and membership inference."""

from monai_deepfixcx.attacks.base import Attack, AttackResult, Auxiliary, ThreatModel, Truth, Victims, run_attack

__all__ = ["Attack", "AttackResult", "Auxiliary", "ThreatModel", "Truth", "Victims", "run_attack"]
