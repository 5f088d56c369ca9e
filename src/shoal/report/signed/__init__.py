"""The report that somebody signs: one run or its seeds as one HTML page and one PDF, in English or Japanese."""
