"""Bag-of-words baseline: a linear SVM on TF-IDF of words and word pairs, on the training rows of the models.

python -m benchmarks.linear_baseline ag_news [DATA_DIR]
"""

import sys

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from train.data.loading import load_split
from train.data.source import DataSource


def main(dataset: str, data_dir: str | None = None) -> None:
    source = DataSource(dataset, data_dir)
    train, _ = load_split(source.at("train"))
    test, _ = load_split(source)
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2), LinearSVC())
    model.fit(list(train["text"]), list(train["label"]))
    accuracy = accuracy_score(list(test["label"]), model.predict(list(test["text"])))
    print(f"{dataset}, {source.report_split} ({len(test):,} rows): accuracy {accuracy:.2%}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
