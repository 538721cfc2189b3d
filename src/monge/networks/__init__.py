"""Networks: functions of (x, t, cond) shaped like x. They know no flow."""
