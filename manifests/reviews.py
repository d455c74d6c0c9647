"""A person's verdict on a clip: kept in the clip's row, with time and reason, through builds that come later.

Rejected clips are not trained on. (Benchmarks are frozen: a verdict changes none of them.)
"""

from __future__ import annotations

from manifests.dataset import Dataset
from manifests.errors import UsageError
from manifests.schema import Clip, Review, utc_now


def give_verdict(dataset: Dataset, clip_id: str, verdict: Review | None, reason: str = "") -> Clip:
    """Accept or reject a clip, or take the verdict back.

    Args:
        dataset: The dataset.
        clip_id: The clip.
        verdict: None takes back what was said before.
        reason: Why; a rejection needs one, without a verdict there is none.

    Returns:
        The clip's row as it is now.

    Raises:
        UsageError: a rejection without a reason.
        DwmError: no such clip, or the manifest cannot be written.
    """
    said = " ".join(reason.split())
    if verdict is Review.REJECTED and not said:
        raise UsageError(f"clip {clip_id}: say why it is rejected, in a few words")
    if verdict is None:
        return dataset.clips.update(clip_id, review=None, review_at=None, review_reason=None)
    return dataset.clips.update(clip_id, review=verdict, review_at=utc_now(), review_reason=said or None)
