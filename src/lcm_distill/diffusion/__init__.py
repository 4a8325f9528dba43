"""The mathematics of diffusion and consistency models: functions of tensors, without files or logging."""
