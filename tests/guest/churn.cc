#include "churn.h"

Churn::Churn(Pages* pages, const Options& options) : pages_(pages), blank_index_(pages->count() / 2) {
  const uint32_t selected = pages->CountSelected();
  dirty_ = options.dirty < selected ? options.dirty : selected;
  rezero_ = options.rezero < selected ? options.rezero : selected;
}

void Churn::Step() {
  dirty_index_ = Walk(dirty_index_, dirty_, &Pages::Renew);
  blank_index_ = Walk(blank_index_, blank_, &Pages::Renew);
  blank_ = rezero_;
  Walk(blank_index_, blank_, &Pages::Blank);
}

uint32_t Churn::Walk(uint32_t index, uint32_t count, void (Pages::*change)(uint32_t)) {
  while (count > 0) {
    if (pages_->IsSelected(index)) {
      (pages_->*change)(index);
      --count;
    }
    if (++index == pages_->count()) index = 0;
  }
  return index;
}
