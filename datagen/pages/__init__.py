"""What every self-contained page shares: style, drawings, pictures and the template engine."""
