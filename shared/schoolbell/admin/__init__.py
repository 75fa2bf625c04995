"""What operators work with: the admin API and the page `/admin/scheduled-jobs`, for the role `system_admin` only."""
