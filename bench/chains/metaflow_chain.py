# mypy: ignore-errors
"""Ten steps that do nothing, one after the other, as a Metaflow flow."""

from metaflow import FlowSpec, step


class ChainFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.step1)

    @step
    def step1(self):
        self.next(self.step2)

    @step
    def step2(self):
        self.next(self.step3)

    @step
    def step3(self):
        self.next(self.step4)

    @step
    def step4(self):
        self.next(self.step5)

    @step
    def step5(self):
        self.next(self.step6)

    @step
    def step6(self):
        self.next(self.step7)

    @step
    def step7(self):
        self.next(self.step8)

    @step
    def step8(self):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ChainFlow()
