"""What every adapter of a port must do. A suite is a class; a test module inherits it and brings the fixtures."""
