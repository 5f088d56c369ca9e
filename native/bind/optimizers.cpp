// shoal._native's optimizers: Adam and RMSProp on moments that Python owns.
#include "bind/optimizers.hpp"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>

#include <cmath>

namespace nb = nanobind;
using namespace nb::literals;

namespace shoal {
namespace {

double checked_number(double number, const char* name) {
  if (!std::isfinite(number) || number < 0.0) {
    throw std::invalid_argument(std::string(name) + " must be a finite number that is not negative, not " +
                                std::to_string(number));
  }
  return number;
}

std::int64_t checked_steps(std::int64_t step) {
  constexpr std::int64_t most = std::int64_t{1} << 53;  // what Adam's powers can tell apart
  if (step < 0 || step > most) {
    throw std::invalid_argument("step must lie between 0 and 2**53, not " + std::to_string(step));
  }
  return step;
}

class NativeAdam : public NativeOptimizer {
 public:
  NativeAdam(const ArrayOut& exp_avg, const ArrayOut& exp_avg_sq, double learning_rate, std::pair<double, double> betas,
             double eps, std::int64_t step, const std::string& kernels)
      : NativeOptimizer({exp_avg, exp_avg_sq},
                        Adam{checked_number(learning_rate, "learning_rate"), 0.0, 0.0, checked_number(eps, "eps"),
                             checked_steps(step), numbers<float>(exp_avg, "exp_avg", {axis(exp_avg, "exp_avg", 1, 0)}),
                             numbers<float>(exp_avg_sq, "exp_avg_sq", {exp_avg.shape(0)})},
                        kernels) {
    set_betas(betas);
  }

  [[nodiscard]] Adam& adam() noexcept { return *std::get_if<Adam>(&state()); }
  void set_betas(std::pair<double, double> betas) {
    for (const double beta : {betas.first, betas.second}) {
      const bool fits = beta >= 0.0 && beta < 1.0;  // NaN does not
      if (!fits) {
        throw std::invalid_argument("betas must lie between 0 and 1, 1 left out, not " + std::to_string(beta));
      }
    }
    adam().beta1 = betas.first;
    adam().beta2 = betas.second;
  }
};

class NativeRmsProp : public NativeOptimizer {
 public:
  NativeRmsProp(const ArrayOut& square_avg, double learning_rate, double alpha, double eps, std::int64_t step,
                const std::string& kernels)
      : NativeOptimizer({square_avg},
                        RmsProp{checked_number(learning_rate, "learning_rate"), checked_number(alpha, "alpha"),
                                checked_number(eps, "eps"), checked_steps(step),
                                numbers<float>(square_avg, "square_avg", {axis(square_avg, "square_avg", 1, 0)})},
                        kernels) {}

  [[nodiscard]] RmsProp& rms_prop() noexcept { return *std::get_if<RmsProp>(&state()); }
};

}  // namespace

void bind_optimizers(const nb::module_& module) {
  nb::class_<NativeOptimizer> optimizer(module, "Optimizer", "What steps on a gradient; see Adam and RMSProp.");
  optimizer.def_prop_rw(
      "learning_rate",
      [](NativeOptimizer& self) { return std::visit([](auto& s) { return s.learning_rate; }, self.state()); },
      [](NativeOptimizer& self, double rate) {
        const double checked = checked_number(rate, "learning_rate");
        std::visit([&](auto& s) { s.learning_rate = checked; }, self.state());
      });
  optimizer.def_prop_rw(
      "eps", [](NativeOptimizer& self) { return std::visit([](auto& s) { return s.eps; }, self.state()); },
      [](NativeOptimizer& self, double eps) {
        const double checked = checked_number(eps, "eps");
        std::visit([&](auto& s) { s.eps = checked; }, self.state());
      });
  optimizer.def_prop_rw(
      "step", [](NativeOptimizer& self) { return std::visit([](auto& s) { return s.step; }, self.state()); },
      [](NativeOptimizer& self, std::int64_t step) {
        const std::int64_t checked = checked_steps(step);
        std::visit([&](auto& s) { s.step = checked; }, self.state());
      },
      "Steps made so far.");
  optimizer.def("apply", &NativeOptimizer::apply, "params"_a.noconvert(), "grad"_a.noconvert(), "max_grad_norm"_a,
                "One step of float32 params [P] on grad [P], scaled down to max_grad_norm as torch's clip_grad_norm_ "
                "does. Returns the gradient's norm; where that is not finite, nothing has changed.");
  nb::class_<NativeAdam, NativeOptimizer>(
      module, "Adam", "torch.optim.Adam (no weight decay) on float32 moments [P] that stay the caller's memory.")
      .def(nb::init<const ArrayOut&, const ArrayOut&, double, std::pair<double, double>, double, std::int64_t,
                    const std::string&>(),
           "exp_avg"_a.noconvert(), "exp_avg_sq"_a.noconvert(), nb::kw_only(), "learning_rate"_a,
           "betas"_a = std::pair{0.9, 0.999}, "eps"_a = 1e-8, "step"_a = 0, "kernels"_a = "")
      .def_prop_rw(
          "betas", [](NativeAdam& self) { return std::pair{self.adam().beta1, self.adam().beta2}; },
          &NativeAdam::set_betas);
  nb::class_<NativeRmsProp, NativeOptimizer>(
      module, "RMSProp",
      "torch.optim.RMSprop (no momentum, not centered) on float32 moments [P] that stay the caller's memory.")
      .def(nb::init<const ArrayOut&, double, double, double, std::int64_t, const std::string&>(),
           "square_avg"_a.noconvert(), nb::kw_only(), "learning_rate"_a, "alpha"_a = 0.99, "eps"_a = 1e-8, "step"_a = 0,
           "kernels"_a = "")
      .def_prop_rw(
          "alpha", [](NativeRmsProp& self) { return self.rms_prop().alpha; },
          [](NativeRmsProp& self, double alpha) { self.rms_prop().alpha = checked_number(alpha, "alpha"); });
}

}  // namespace shoal
