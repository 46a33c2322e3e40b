r"""What happens to gradients and states over many steps: products, growth, decay."""
