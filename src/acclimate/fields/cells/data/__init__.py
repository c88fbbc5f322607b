"""Pictures of white blood cells: four public laboratories, published layouts, any folder, and made-up cells."""
