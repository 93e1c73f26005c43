"""What was released of whom, and what it costs together."""

import fcntl
import hashlib
import hmac
import json
import os
from pathlib import Path

from monai_deepfixcx.dp.mechanism import gaussian_epsilon


class ReleaseLedger:
    """Keeps account of the releases of every patient in a file, and refuses those that would pass the budget.

    One line of JSON per release. Gaussian releases compose exactly, whatever their codecs and noise: their mu
    (sensitivity by standard deviation) add up in squares. Several processes may share the file.

    Args:
        path: of the file, made if absent.
        epsilon: what all releases of one patient may cost together.
        delta: of (epsilon, delta).
        key: secret of the site; patients are written as their HMAC under it, never by name.

    Raises:
        ValueError: an argument out of range, or a file that is no ledger.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     ledger = ReleaseLedger(Path(folder, "ledger.jsonl"), epsilon=8, delta=1e-5, key=b"of this site")
    ...     ledger.enter("patient 1", mu=1.0, relation="image")
    ...     round(ledger.spent("patient 1"), 2), ledger.spent("patient 2")
    (4.38, 0.0)
    """

    def __init__(self, path: str | Path, epsilon: float, delta: float, key: bytes | str) -> None:
        if not epsilon > 0:
            raise ValueError(f"epsilon must be above 0; got {epsilon!r}.")
        if not 0 < delta < 1:
            raise ValueError(f"delta must lie between 0 and 1; got {delta!r}.")
        if not key:
            raise ValueError("key must be a secret of the site; got none. Without it, names could be guessed.")
        self.path, self.epsilon, self.delta = Path(path), epsilon, delta
        self._key = key.encode() if isinstance(key, str) else key
        self._squares: dict[tuple[str, str], float] = {}
        self._read = 0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()
        self._catch_up()

    def enter(self, patient: object, mu: float, relation: str) -> None:
        """Write down a release, before it is made.

        Args:
            patient: whose code it is.
            mu: sensitivity divided by the noise's standard deviation.
            relation: which images count as neighbours; releases for another relation do not compose with these.

        Raises:
            ValueError: the patient's budget would be passed, or was spent on another relation.
        """
        name = self._pseudonym(patient)
        with self.path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._catch_up()
            if any(entered == name and other != relation for entered, other in self._squares):
                raise ValueError(
                    f"ledger: this patient has releases for another relation than {relation!r}, which do not add up "
                    "with this one. Keep one relation, or a ledger of its own for each."
                )
            total = (self._squares.get((name, relation), 0.0) + mu**2) ** 0.5
            epsilon = gaussian_epsilon(self.delta, total)
            if epsilon > self.epsilon:
                raise ValueError(
                    f"ledger: another release of this patient would come to epsilon {epsilon:.3g} at delta "
                    f"{self.delta:g}; at most {self.epsilon:g} is allowed. Use a code that was released already: "
                    "using it again costs nothing."
                )
            file.write(json.dumps({"patient": name, "mu": mu, "relation": relation}).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def spent(self, patient: object) -> float:
        """The epsilon of all releases of a patient so far; 0 without any."""
        self._catch_up()
        name = self._pseudonym(patient)
        squares = [value for (entered, _), value in self._squares.items() if entered == name]
        return gaussian_epsilon(self.delta, max(squares, default=0.0) ** 0.5)

    def _pseudonym(self, patient: object) -> str:
        return hmac.new(self._key, str(patient).encode(), hashlib.sha256).hexdigest()

    def _catch_up(self) -> None:
        """Read the lines that were written, by anyone, since the last time."""
        with self.path.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        whole, newline, _ = text.rpartition(b"\n")
        for line in whole.splitlines():
            try:
                entry = json.loads(line)
                place = (str(entry["patient"]), str(entry["relation"]))
                self._squares[place] = self._squares.get(place, 0.0) + float(entry["mu"]) ** 2
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"path: {self.path} is no ledger: a line of it cannot be read.") from error
        self._read += len(whole) + len(newline)
