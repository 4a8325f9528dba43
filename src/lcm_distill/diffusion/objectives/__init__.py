"""What a student is trained to do. Every objective is called the same way; `interface` says how."""
