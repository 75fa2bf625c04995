"""What every Schoolbell function imports: the job runtime, the data layer and the gateways to outside services."""

__version__ = "0.1.0"
