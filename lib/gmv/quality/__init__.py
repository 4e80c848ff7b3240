"""Checks of what is about to be published: rules that name what breaks them (declared in `gmv.checks`)."""

from gmv.quality.gates import check_gold, check_recomputed, check_silver, row_accounts

__all__ = ["check_gold", "check_recomputed", "check_silver", "row_accounts"]
